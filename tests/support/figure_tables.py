"""Tables of a run with every file that a figure reads, with known values."""

from itertools import combinations, product
from pathlib import Path

from coupled.analysis.schemas import SCHEMAS

ARMS = {"cl": {"objective": "dcl", "temperature": 0.5}, "mine": {"objective": "byol"}}
ARMS |= {"nscl": {"objective": "nscl"}, "twin": dict(ARMS["cl"]), "ce": {"objective": "cross_entropy"}}
OTHERS = ("mine", "nscl", "twin", "ce")
LAYERS = ("stem", "layer1", "h")


def value(epoch: int, arm: str, shift: float = 0.0) -> float:
    return 0.01 * epoch * (1 + OTHERS.index(arm)) + (epoch > 0) * shift


def write_tables(folder: Path, arms: tuple[str, ...] = OTHERS) -> None:
    """Gap g, CKA 1 - g, RSA 1 - g / 2 at h, less at lower layers; a row of another snapshot and one of fewer images."""
    gaps, scores = (
        ["epoch,reference,arm,tensor,module,aggregate,gap,angle,arm_digest"],
        ["epoch,split,reference,arm,module,metric,value,ci_low,ci_high,num_images"],
    )
    quality_rows = ["epoch,split,arm,module,metric,variant,shots,k,value,num_images,num_train_images"]
    for epoch in (0, 1, 3):
        for arm in arms:
            gap = value(epoch, arm)
            gaps += [f"{epoch},cl,{arm},,,mean,9,,old", f"{epoch},cl,{arm},,,mean,{gap},,new"]
            gaps += [f"{epoch},cl,{arm},,,global,9,{100 * gap},new"]
            gaps += [f"{epoch},cl,{arm},,{layer},mean,{gap + place},,new" for place, layer in enumerate(LAYERS[:2])]
            for metric, slope in (("cka", 1), ("rsa", 0.5)):
                for place, layer in enumerate(reversed(LAYERS)):
                    there = 1 - slope * gap - 0.1 * place
                    low, high = (there - 0.01, there + 0.02) if arm == "ce" else ("", "")
                    scores += [f"{epoch},test,cl,{arm},{layer},{metric},{there},{low},{high},357"]
                scores += [f"{epoch},test,cl,{arm},h,{metric},0.5,,,20"]
        scores += [f"{epoch},test,{one},{other},h,cka,0.3,,,357" for one, other in combinations(arms, 2)]
        for arm in ("cl", *arms):
            for metric, detail in (("nccc", "euclidean"), ("cdnv", "one_class"), ("linear_probe", "paper")):
                known = 0.5 if arm == "cl" else value(epoch, arm)
                quality_rows += [f"{epoch},test,{arm},h,{metric},{detail},,,{known},357,1440"]
    collapse_rows = ["epoch,split,arm,module,metric,variant,component,value,collapsed,num_images"]
    for epoch in (0, 1, 3):
        for arm in ("cl", *arms):
            known = 0.5 if arm == "cl" else value(epoch, arm)
            collapse_rows += [f"{epoch},test,{arm},z,spread,unit_norm,,{known},no,357"]
            collapse_rows += [f"{epoch},test,{arm},z,spread,unit_norm,,9,no,20"]
        for metric in ("l_c", "norm"):
            collapse_rows += [f"{epoch},test,{arm},z,{metric},unnormalised,,{2 + epoch},,357" for arm in ("cl", *arms)]
        for j in (1, 2):
            collapse_rows += [f"{epoch},test,mine,predictor,eigenspace_alignment,,{j},{0.1 * epoch + 0.2 * j},,357"]
    merged = ["epoch,reference,arm,position,module,metric,variant,shots,k,value,num_images,num_train_images"]
    merged[0] += ",num_batch_norm_images"
    for epoch, arm, position in product((0, 1, 3), arms, (0.0, 0.5, 1.0)):
        known = f"h,nccc,euclidean,,,{position * value(epoch, arm, 0.1)},357,1440,1280"
        merged += [
            f"{epoch},cl,{arm},{position},{known}",
            f"{epoch},cl,{arm},{position},h,nccc,euclidean,,,9,357,1440,0",
        ]
    reliability = ["epoch,split,arm,module,variant,bins,bin,count,confidence,accuracy,num_images,num_train_images"]
    reliability += [f"3,test,{arm},h,linear_probe,2,{k},10,{k / 2 - 0.1},0.5,20,20" for arm in arms for k in (1, 2)]
    robust = ["epoch,split,source,arm,module,variant,corruption,severity,value,num_images,num_train_images"]
    robust += [f"3,test,generated,{arm},h,linear_probe,fog,{s},{s / 10},20,20" for arm in arms for s in range(1, 6)]
    curves = ["epoch,split,reference,arm,module,k,value,num_images"]
    curves += [f"3,test,cl,{arm},h,{k},{k / 100 + value(1, arm)},101" for arm in arms for k in (1, 5, 10)]
    classes = ["epoch,split,reference,arm,module,metric,label,value,num_images"]
    classes += [f"3,test,cl,{arm},h,cka,{k},{k / 10 + value(1, arm)},20" for arm in arms for k in (2, 0, 1)]
    barriers, slopes = barrier_rows(arms), gradient_rows(arms)
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in {
        "weight_gap": gaps,
        "test_alignment": scores,
        "quality": quality_rows,
        "collapse": collapse_rows,
        "merge": merged,
        "reliability": reliability,
        "robustness": robust,
        "test_mutual_knn": curves,
        "test_class_alignment": classes,
        "barrier": barriers,
        "gradients": slopes,
    }.items():
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")


def barrier_rows(arms: tuple[str, ...]) -> list[str]:
    """A hill whose height is `value` in the loss, and a valley as deep in the accuracy, with matched channels."""
    rows = [",".join(SCHEMAS["barrier.csv"].columns)]
    for epoch, arm, position in product((0, 1, 3), arms, (0.0, 0.5, 1.0)):
        hill, place = value(epoch, arm) * (position == 0.5), f"{epoch},test,cl,{arm}"
        rows += [f"{place},none,{position},z,nscl,,,,0.5,{1 + hill},{hill},357,,1280,64,a,b,c,d"]
        rows += [f"{place},permutation,{position},h,nccc,euclidean,,,,{0.5 - hill},{-hill},357,1440,1280,,a,b,c,d"]
        rows += [f"{place},none,{position},z,nscl,,,,0.5,9,9,357,,0,64,a,b,c,d"]
    return rows


def gradient_rows(arms: tuple[str, ...]) -> list[str]:
    """Two bins, and an empty one."""
    rows = [",".join(SCHEMAS["gradients.csv"].columns)]
    for epoch, arm, kind in product((0, 3), ("cl", *arms), ("pair", "anchor")):
        for relation in ("same_image", "same_class", "different_class"):
            place = f"{epoch},test,{arm},nscl,0.5,{kind},{relation}"
            rows += [f"{place},{low},{low + 0.1:.1f},5,{0.1 + low},0.1,357,64,a,b" for low in (0.4, 0.2)]
            rows += [f"{place},0.9,1.0,0,,,357,64,a,b"]
    return rows
