"""Load and save models, at the address that the guide gives: `apt_model.models.pretrained` has the code."""

from apt_model.models.pretrained import get_model_size, load_model, save_model

__all__ = ["get_model_size", "load_model", "save_model"]
