"""What other trainers and rich do under a fault, as they are installed. Knows nothing of apt_model."""
