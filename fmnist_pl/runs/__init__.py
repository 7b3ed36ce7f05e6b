"""What a run is and what it leaves: folder, identity, record, progress, summary."""
