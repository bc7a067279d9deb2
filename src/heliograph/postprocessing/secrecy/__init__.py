"""How much of a block is secret: bounds, the fixed acceptance set, and the planning of blocks."""
