"""Published experiments that are repeated here."""
