"""From a model class to graphs without weights: skeleton, cut layers, trace, stamped layers."""
