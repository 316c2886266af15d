"""Write examples/rents.csv: 800 invented flats, so that the examples have their own table.

python tools/make_rents.py
"""

from pathlib import Path

import numpy as np

DISTRICTS = {"Harbour": 1.25, "Old Town": 1.45, "Hill": 1.1, "Mill Fields": 0.85, "Station": 0.95}
CONDITIONS = {"new": 1.15, "good": 1.0, "worn": 0.8}

rng = np.random.RandomState(0)  # its numbers are frozen for all versions of NumPy
lines = ["area,rooms,floor,district,condition,balcony,rent"]
for _ in range(800):
    area = int(np.clip(rng.normal(68, 22), 22, 150))
    rooms = int(np.clip(round(area / 25 + rng.normal(0, 0.6)), 1, 6))
    floor = int(rng.randint(0, 8))
    district, condition = rng.choice(list(DISTRICTS)), rng.choice(list(CONDITIONS), p=[0.2, 0.5, 0.3])
    balcony = rng.rand() < 0.4
    by_area = 9.5 * area * DISTRICTS[district] * CONDITIONS[condition]
    rent = by_area * (1 + 0.08 * balcony) * (1 + 0.01 * floor) + 120 + rng.normal(0, 45)
    known_floor = floor if rng.rand() > 0.05 else ""
    known_condition = condition if rng.rand() > 0.03 else ""
    lines.append(f"{area},{rooms},{known_floor},{district},{known_condition},{'yes' if balcony else 'no'},{rent:.0f}")
(Path(__file__).parents[1] / "examples" / "rents.csv").write_text("\n".join(lines) + "\n", newline="\n")
