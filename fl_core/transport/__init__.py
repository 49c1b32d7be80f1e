"""mTLS streams between the aggregator and its silos: gRPC, generic byte handlers, no pickle."""
