"""What a model is made of, what it loses without a part, and what gradients say of it."""
