"""The policy pack: rules that every resource of a federation keeps."""
