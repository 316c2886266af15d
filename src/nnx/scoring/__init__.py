"""How well a model predicts: metrics, and the reports of them."""
