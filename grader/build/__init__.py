"""From the lessons' text to notebooks: reading lessons, taking sources from `tinyllm`, stubs, release and drift."""
