"""`make demo`: from the template to a finished dataset, on this machine, with nothing left behind but the result."""
