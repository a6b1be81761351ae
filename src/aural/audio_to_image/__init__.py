"""Pictures from sound: AudioToken, a recording as one word in the prompt of a frozen text-to-image diffusion model."""
