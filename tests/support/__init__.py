"""What several tests use: servers, microscopes, ensembles, clients and files."""
