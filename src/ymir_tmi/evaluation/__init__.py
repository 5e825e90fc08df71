"""How good detections are: COCO's numbers, the best threshold, curves, confusions, best and worst images."""
