"""Built-in registrations, on the same road as a third party's. Importing one does not import torch."""
