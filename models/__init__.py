"""Networks of tensors: generators, discriminators, encoders, segmenters."""
