"""What the gate signs, seals and keeps secret. Import the public names from `kest.gate`."""
