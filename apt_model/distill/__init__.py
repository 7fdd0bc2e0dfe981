"""How the student learns. Tensors live here and end here; what a lesson means is decided elsewhere."""
