"""How a model is trained and used: as a plan, in segments, or layer by layer. Also the records and files of a run."""
