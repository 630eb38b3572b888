"""What a checkpoint folder in Hugging Face format says about its model: read as `transformers` reads it, or refused."""
