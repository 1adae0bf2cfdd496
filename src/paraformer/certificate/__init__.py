"""What an exported directory must show when it is made, and again on the machine that runs it. Torch-free."""
