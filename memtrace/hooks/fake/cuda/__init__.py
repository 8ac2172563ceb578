"""What torch.cuda answers in a prediction."""
