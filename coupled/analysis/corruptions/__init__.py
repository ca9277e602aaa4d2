"""The common corruptions of images of Hendrycks and Dietterich 2019, generated or read from folders."""
