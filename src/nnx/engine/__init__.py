"""How a model is trained and used: as a program and plan, or layer by layer; what is recorded and kept of a run."""
