"""Columns and tables of the programs that compute theory; schemas.py adds them to all others."""

from coupled.analysis.cells import NAME, ORDINAL, SIZE, TEXT, Column

COLUMNS = {
    "alpha_p": Column("learning rate of the predictor divided by that of the encoder", SIZE),
    "sigma2": Column("variance of the augmentation, sigma^2", SIZE),
    "eta": Column("weight decay", SIZE),
    "point": Column("fixed point: collapse, lower or upper", NAME),
    "eigenvalue": Column("largest real part of the eigenvalues of the Jacobian", unit="per unit of time"),
    "stable": Column("yes if the fixed point is stable", TEXT),
    "start": Column("index of the start of the trajectory", ORDINAL),
    "start_p": Column("p at the start"),
    "start_s": Column("s at the start", SIZE),
    "time": Column("time of the gradient flow: learning rate times steps", SIZE),
    "p": Column("eigenvalue of the predictor"),
    "s": Column("eigenvalue of W W^T", SIZE),
    "tau": Column("target's singular value divided by that of W; 1 without an EMA"),
    "rates": Column("sum of the learning rates of the steps", SIZE),
    "log10_bound": Column("log10 of the a-priori bound on the distance"),
    "flow": Column("value in lemma 1 with the second moments of the run's views; empty for other losses"),
    "invariant": Column("s - p^2 / alpha_p"),
}
BETA = Column("rate of the EMA of the target; empty without an EMA", SIZE)
_MODEL = "alpha_p sigma2 eta"
TABLES: dict[str, tuple[str, str, str, dict[str, Column]]] = {  # name -> program, columns, columns outside the key
    "directpred_fixed_points.csv": (
        "directpred_theory",
        f"{_MODEL} beta point p s tau eigenvalue stable",
        "p s tau eigenvalue stable",
        {"beta": BETA},
    ),
    "directpred_trajectories.csv": (
        "directpred_theory",
        f"{_MODEL} start time p s invariant",
        "p s invariant",
        {},
    ),
    "directpred_theorems.csv": (
        "directpred_theory",
        f"{_MODEL} of time measured value",
        "measured value",
        {
            "of": Column("invariant (theorem 1) or commutator (theorem 3)", NAME),
            "measured": Column("Frobenius norm in the integrated flow", SIZE),
            "value": Column("the same by the theorem: equal for invariant, an upper bound for commutator", SIZE),
        },
    ),
    "directpred_sweep.csv": (
        "directpred_theory",
        f"{_MODEL} beta start_p start_s time p s collapsed",
        "p s collapsed",
        {"beta": BETA, "collapsed": Column("yes if s has vanished at this time", TEXT)},
    ),
    "directpred_run.csv": (
        "directpred_theory",
        "epoch arm time of component measured flow value arm_digest images_digest",
        "time measured flow value",
        {
            "of": Column("s, p, asymmetry, commutator, or invariant (theorem 1)", NAME),
            "component": Column(
                "index of the mode, 1 for the largest s (in theory at the start); empty for norms", ORDINAL
            ),
            "measured": Column("value in the snapshot"),
            "value": Column("value in theory: decoupled modes with isotropic views; theorem 1 for invariant"),
        },
    ),
    "similarity_descent.csv": (
        "similarity_descent",
        "temperature batch_size step of rates distance log10_bound value measured log10_rho vacuous holds",
        "rates distance log10_bound value measured log10_rho vacuous holds",
        {
            "of": Column("cka or rsa", NAME),
            "distance": Column("||Sigma_CL - Sigma_NSCL||, Frobenius", SIZE),
            "value": Column("the lower bound of the score; -1 if vacuous"),
            "measured": Column("the score of CL and NSCL"),
            "log10_rho": Column("log10 of the bound on the distance, relative to CL"),
            "holds": Column("no if the distance or the score violates its bound", TEXT),
        },
    ),
}
