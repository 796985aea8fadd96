"""The report's tables, one file each: from rows to words."""
