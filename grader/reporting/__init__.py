"""From judged results to what people look at: final marks, CSV files, feedback pages, the class report."""
