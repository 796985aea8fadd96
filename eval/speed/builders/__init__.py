"""How a cell is built: one module a kind of subject."""
