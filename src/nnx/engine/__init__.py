"""How a model is trained and used: as a plan, in segments, or layer by layer; what is recorded and kept of a run."""
