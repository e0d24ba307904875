"""An experiment: which units there are, training them, and the folder that holds them."""
