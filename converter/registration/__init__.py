"""What plugins bring: found, loaded one by one, put together. `converter.registry` is what others use."""
