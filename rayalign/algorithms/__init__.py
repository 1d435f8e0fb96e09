"""Pure torch: transition kernels, pairing, losses. Tensors in, tensors out; one method a file.

Shape suffixes: B batch, K candidates, N inference steps, T training timesteps, C H W latent channels, height, width.
"""
