"""HTTP faces: each one translates a protocol to the completion service and back."""
