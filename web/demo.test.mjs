// The page in Chromium: node --test web/demo.test.mjs, after make demo. It needs playwright-core and a chromium.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

const PLACE = fileURLToPath(new URL("../build/demo/", import.meta.url));
const CHROMIUM = process.env.CHROMIUM ?? ["/usr/bin/chromium", "/usr/bin/google-chrome"].find((path) => existsSync(path));
const PICTURES = process.env.NNX_DEMO_PICTURES; // a folder for screenshots
const FLAGS =
  "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync";
const TYPES = { ".html": "text/html", ".css": "text/css", ".mjs": "text/javascript", ".json": "application/json" };
const LOADING = 120_000; // milliseconds, on a busy machine
const STEPS = 1000;

const playwright = await import(process.env.PLAYWRIGHT ?? "playwright-core").catch(() => null);
const missing =
  (!playwright && "playwright-core is not installed") ||
  (!CHROMIUM && "there is no chromium") ||
  (!existsSync(join(PLACE, "index.html")) && "run make demo first");

let server, browser, address;
const sent = new Map(); // bytes by path

before(async () => {
  if (missing) return;
  server = createServer((request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname).replace(/\/$/, "/index.html");
    const file = join(PLACE, path);
    if (!existsSync(file)) return response.writeHead(404).end();
    const content = readFileSync(file);
    sent.set(path, content.length);
    const type = TYPES[extname(file)] ?? (file.endsWith(".wasm") ? "application/wasm" : "application/octet-stream");
    response.writeHead(200, { "content-type": type }).end(content);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  address = `http://127.0.0.1:${server.address().port}/`;
  browser = await playwright.chromium.launch({
    executablePath: CHROMIUM,
    args: FLAGS.split(" "),
    chromiumSandbox: false,
  });
});

after(async () => {
  await browser?.close();
  server?.close();
});

async function open(options = {}, query = "") {
  const page = await browser.newPage({ viewport: { width: 1200, height: 900 }, ...options });
  page.problems = [];
  page.on("console", (message) => message.type() === "error" && page.problems.push(message.text()));
  page.on("pageerror", (error) => page.problems.push(String(error)));
  await page.goto(address + query);
  await page.waitForSelector("#run:not([disabled])", { timeout: LOADING });
  return page;
}

const text = (page, id) => page.textContent(`#${id}`);
const steps = async (page) => Number((await text(page, "steps")).replaceAll(",", ""));
const pixels = (page) =>
  page.$eval("#regions", (canvas) => {
    const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [...all.filter((_, i) => i % 97 === 0)];
  });
const reaches = (page, count) =>
  page.waitForFunction(
    (wanted) => Number(document.getElementById("steps").textContent.replaceAll(",", "")) >= wanted,
    count,
    { timeout: LOADING },
  );
const slide = (page, id, value) =>
  page.$eval(
    `#${id}`,
    (slider, chosen) => {
      slider.value = chosen;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    },
    value,
  );
const picture = (page, name) => PICTURES && page.screenshot({ path: join(PICTURES, `browser-${name}.png`), fullPage: true });

test("1,000 steps are trained and drawn", { skip: missing }, async (t) => {
  const page = await open({}, `?steps=${STEPS}`);
  await reaches(page, 1);
  const first = await pixels(page);
  await reaches(page, STEPS);
  await page.waitForFunction(() => document.getElementById("run").textContent === "Go on");
  const last = await pixels(page);
  assert.equal(await steps(page), STEPS);
  assert.ok(Number(await text(page, "accuracy")) > 0.95, `accuracy ${await text(page, "accuracy")}`);
  assert.ok(Number(await text(page, "new-accuracy")) > 0.85, `on new points ${await text(page, "new-accuracy")}`);
  assert.ok(Number(await text(page, "loss")) < 0.2, `loss ${await text(page, "loss")}`);
  const changed = first.filter((value, i) => Math.abs(value - last[i]) > 8).length / first.length;
  assert.ok(changed > 0.1, `${changed} of the picture changed`);
  assert.deepEqual(page.problems, []);
  t.diagnostic(`${await text(page, "about")} Steps a second: ${await text(page, "speed")}`);
  t.diagnostic(`bytes sent: ${[...sent.values()].reduce((sum, bytes) => sum + bytes, 0)}`);
  await picture(page, "wide");
  await page.close();
});

test("sliders start again, but for the learning rate", { skip: missing }, async () => {
  const page = await open({}, "?steps=100");
  await reaches(page, 100);
  await slide(page, "rate", -1.5);
  assert.equal(await steps(page), 100);
  await page.click("#run"); // goes on for another 100
  await reaches(page, 200);
  for (const [id, value] of [["width", 8], ["layers", 1], ["noise", 0.3], ["classes", 5]]) {
    await slide(page, id, value);
    await page.waitForFunction(() => document.getElementById("steps").textContent === "0", null, { timeout: LOADING });
    assert.equal(await text(page, "loss"), "–");
    await page.click("#run");
    await reaches(page, 100);
  }
  assert.deepEqual(page.problems, []);
  await page.close();
});

test("it pauses, goes on and resets by keyboard", { skip: missing }, async () => {
  const page = await open();
  await reaches(page, 5);
  await page.focus("#run");
  await page.keyboard.press("Enter");
  const paused = await text(page, "run");
  await page.waitForTimeout(500);
  const before = await steps(page);
  await page.waitForTimeout(500);
  assert.equal(paused, "Go on");
  assert.equal(await steps(page), before);
  await page.keyboard.press("Enter");
  await reaches(page, before + 1);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("steps").textContent === "0");
  assert.equal(await text(page, "run"), "Start");
  await page.focus("#width");
  await page.keyboard.press("ArrowRight");
  assert.equal(await text(page, "restarting").then((all) => all.includes("36")), true);
  assert.deepEqual(page.problems, []);
  await page.close();
});

test("a phone shows it without scrolling sideways, and in the dark", { skip: missing }, async () => {
  const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, colorScheme: "dark" };
  const page = await open(phone, "?steps=500");
  await reaches(page, 500);
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360);
  await picture(page, "phone");
  await page.close();
});

test("who asks for less motion presses Start", { skip: missing }, async () => {
  const page = await open({ reducedMotion: "reduce" });
  await page.waitForTimeout(1000);
  assert.equal(await steps(page), 0);
  await page.click("#run");
  await reaches(page, 1);
  assert.deepEqual(page.problems, []);
  await page.close();
});
