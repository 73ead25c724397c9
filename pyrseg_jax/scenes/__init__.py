"""Paint synthetic street, park and waterside photographs together with their label maps."""
