"""From a trained detector to an artefact: torch → graph → quantised → proven."""
