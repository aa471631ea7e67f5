"""Pure torch modules that restate a model for export, one file per architecture or family."""
