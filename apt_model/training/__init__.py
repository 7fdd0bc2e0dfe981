"""The guide's address of model loading and saving; the code is in `apt_model.models.pretrained`."""
