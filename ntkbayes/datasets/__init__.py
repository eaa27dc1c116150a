"""Datasets: data split into training, validation and test points, in standardised units.

Every dataset is made in the same steps: check the raw arrays, split them, standardise them with
statistics of the training split alone (the other splits stay unseen), and return a `Dataset`,
which checks itself. `load_dataset` gives the bundled and synthetic ones, `make_dataset` does the
same to a user's own arrays; `DATASETS` says what there is.

How a model does where the test points are not like the training points: `shift` moves the test
inputs by five severities (`SHIFTS` says how), `hold_out_classes` leaves classes out of training,
and `away_inputs` are points without labels around the data.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
