"""Teachers: live, cached, or with another tokenizer; each gives the loss its signal."""
