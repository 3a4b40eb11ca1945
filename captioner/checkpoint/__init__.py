"""The checkpoint directory, the Hugging Face Hub, and the model card."""
