"""What ships to the Hub: pipeline, representation, denoiser and conditioning. Imports nothing of ours."""
