"""Losses: pixel, SSIM, perceptual, contrastive, their sum, and CLIP-RPN's loss schedules (DLS)."""
