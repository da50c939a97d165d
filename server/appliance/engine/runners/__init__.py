"""What runners share or do beside serving: the plain runner, sizes, self-check and quality."""
