"""Tests of the Pulumi program without an engine. UPDATE_SNAPSHOTS=1 writes the snapshots anew."""
