"""FedML's aggregator and silo roles on this project's transport. Only this folder imports fedml."""
