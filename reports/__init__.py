"""Tables, figures and pages made from the records of a run."""
