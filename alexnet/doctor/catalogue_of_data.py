"""What can be found in a data set: see catalogue.py."""

from __future__ import annotations

from alexnet.doctor.entry import NOTE as _N
from alexnet.doctor.entry import PROBLEM as _P
from alexnet.doctor.entry import WARNING as _W
from alexnet.doctor.entry import Entry

DATA = {
    "data-refused": Entry(_P, "The data cannot be opened; the message says why.", "Do what the message says."),
    "flat-validation": Entry(
        _P,
        "The validation images lie in one folder, so their classes are unknown; read as a class of its own, the error "
        "is 99.9 %.",
        "Sort them into class folders named as in train, by the list of labels that came with them; "
        "Tiny-ImageNet-200's val_annotations.txt is read as it is when wnids.txt lies beside train.",
    ),
    "no-class-folders": Entry(
        _P, "Images without class folders.", "Put each class's images into a folder of its own: DATA/cat, DATA/dog."
    ),
    "nested-too-deep": Entry(
        _P,
        "The data set lies one folder further down (an archive unpacked into a folder of its name).",
        "Give the inner folder.",
    ),
    "split-inside-split": Entry(
        _P,
        "A train or val folder inside another one: its images would count as one class.",
        "Move the inner folder up, or give the folder that holds train and val themselves.",
    ),
    "classes-only-in-val": Entry(
        _P,
        "A class of the validation split that is not trained.",
        "Name the folders alike (upper and lower case count), add training images, or move the folder out of val.",
    ),
    "classes-missing-in-val": Entry(
        _W,
        "A class of the training split without validation images: the errors say nothing about it.",
        "Add validation images, or remove the val folder, so that a part of train is held out.",
    ),
    "one-class": Entry(_P, "All images are of one class.", "Give the folder that holds the class folders."),
    "empty-class": Entry(_W, "A class folder without a readable kind of image.", "Add images or remove the folder."),
    "loose-images": Entry(
        _W, "Images beside the class folders, which are not used.", "Move them into a class folder, or away."
    ),
    "unread-image-format": Entry(
        _W, "Images in a format that is not read here (HEIC, camera raw, SVG).", "Convert them to JPEG or PNG."
    ),
    "other-files": Entry(_N, "Files that are no images; they are not used.", "Nothing."),
    "litter": Entry(_N, "Files that macOS or Windows leaves behind; they are not used.", "Nothing."),
    "devkit-ids": Entry(
        _W,
        "Class folders numbered 1 to N or 0 to N-1, N at least 100: the devkit's ids, whose order is not that of the "
        "sorted wnids, or plain numbers, which other tools sort as text (0, 1, 10, 100, 2).",
        "Name the folders by wnid or by word. For ILSVRC, the devkit's meta.mat says which wnid an id is.",
    ),
    "numbered-classes": Entry(
        _N,
        "Class folders named by numbers. Their order here is 2 before 10; other tools sort 10 before 2.",
        "Compare labels with other tools by name, not by position.",
    ),
    "class-imbalance": Entry(
        _W,
        "The largest class has many times the images of the smallest; a network leans to the large ones.",
        "Add images to the small classes, or leave out some of the large ones; read the error of each class.",
    ),
    "nearly-empty-class": Entry(
        _W, "A class with hardly any training images beside the others.", "Add images, or remove the class."
    ),
    "few-images": Entry(
        _N,
        "Few training images a class: from scratch a network learns to guess better, not much more.",
        "Some hundred images a class are where it gets good.",
    ),
    "small-validation": Entry(
        _N, "A small validation split: its error is uncertain.", "Read the 95 % interval that comes with each error."
    ),
    "prepared-unfinished": Entry(
        _P,
        "Shards without a dataset.json that can be read: the preparation did not finish, or the file was not copied.",
        "Give the same alexnet prepare command again; it goes on. Or copy the whole folder again.",
    ),
    "prepared-damaged": Entry(
        _P,
        "A shard or an index of the prepared data set is missing or has another length than dataset.json says; with "
        "--full, another checksum.",
        "Copy it again, or prepare it again with --overwrite.",
    ),
}

IMAGES = {
    "unreadable-images": Entry(
        _W,
        "Images that cannot be decoded. They are left out; above data.max_unreadable the run is refused.",
        "Replace or remove them.",
    ),
    "cmyk-images": Entry(
        _N, "CMYK images. They are read rightly here; some tools invert them.", "Nothing, within this package."
    ),
    "deep-images": Entry(_N, "Images of 16 bits or more a channel; they are scaled to 8 here.", "Nothing."),
    "wrong-extension": Entry(
        _N, "Files whose name says another format than their content. The content counts here.", "Nothing."
    ),
    "animated-images": Entry(_N, "Animations; the first frame is used.", "Nothing, unless other frames matter."),
    "tiny-images": Entry(
        _W, "Images with a side under 16 pixels, such as thumbnails of failed downloads.", "Look at them; remove them."
    ),
    "extreme-aspect": Entry(
        _W,
        "Images more than three times as long as wide; the centre square is a small part of them.",
        "Look whether the centre shows the object; cut them by hand.",
    ),
    "validation-in-training": Entry(
        _P,
        "Nearly all validation images are training images too: the error measures memory.",
        "Take another validation set, or remove the val folder, so that a part of train is held out.",
    ),
    "duplicates-across-splits": Entry(
        _P, "Images that lie in train and in val: the validation error is too good.", "Remove them from one of the two."
    ),
    "duplicates-across-classes": Entry(
        _W, "The same image in two classes; no classifier can get both right.", "Remove it from the wrong one."
    ),
    "duplicates-in-training": Entry(
        _N, "Copies of one image in a class of the training split; it counts more than others.", "Remove the copies."
    ),
}
