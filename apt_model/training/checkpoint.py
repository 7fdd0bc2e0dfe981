"""Load and save models, at the address that the guide gives: `apt_model.models.pretrained` has the code."""

from apt_model.models.pretrained import load_model, save_model
from apt_model.models.weights import get_model_size

__all__ = ["get_model_size", "load_model", "save_model"]
