"""mdBook preprocessor: listings, figures, numbers, quizzes and formulas, each of which stops the build when wrong."""
