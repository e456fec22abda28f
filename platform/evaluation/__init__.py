"""PSNR and SSIM under named protocols, and the tables they are reported in."""
